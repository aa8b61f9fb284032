"""A card that isn't there: tensors that say they are on cuda:0 and have their values on the CPU.

`tensors` has the tensors and torch's rules on devices, `backward` a stand-in for the engine of autograd, and `machine`
replaces the calls of torch that need a driver.
"""
