"""A card that isn't there: tensors that say they are on cuda:0 and have their values on the CPU.

`tensors` has the tensors and torch's rules on devices; `backward` and `attention` are stand-ins for autograd's engine
and torch's attention, and `machine` replaces the calls of torch that need a driver.
"""
