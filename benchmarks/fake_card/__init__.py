"""A card that isn't there: tensors that say they are on cuda:0 and have their values on the CPU.

`tensors` has the tensors and torch's rules on devices; `backward` is a stand-in for autograd's engine, and `machine`
replaces torch's attention and the calls of torch that need a driver.
"""
