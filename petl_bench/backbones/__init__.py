"""Frozen backbones. Import the modules themselves: `weights` does not import torch, so planning is fast.

weights      weights files that settings name, and their checksums
pretrained   loading of weights files into timm models
state_dicts  state dicts in weights files
comparison   comparison of the tensors of a file and of a model
misfit       explanation of weights that do not fit
lineage      origins of the tensors that a converter has made
npz          loading of the .npz of the original vision transformers
families     timm models by name, and the sites of each family
tables       sites of a family as a table of names of modules
inferred     sites of transformers that no family claims
probing      passes that verify such sites
sharing      one backbone for many models
sites        places at which adapters are attached
precision    precisions in which the frozen part is computed
activations  reduced memory for activations kept for the backward pass
"""
