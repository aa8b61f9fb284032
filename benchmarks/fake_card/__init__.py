"""A card that isn't there: tensors that say they are on cuda:0 and have their values on the CPU.

`tensors` has the tensors and torch's rules on devices; `machine` replaces autograd's engine,
torch's attention and the calls of torch that need a driver.
"""
