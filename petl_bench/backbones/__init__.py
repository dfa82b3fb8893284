"""Frozen backbones. Import the modules: `weights` alone does without torch, so that plans are quick.

weights      the weights file that a setting names, and its checksum
pretrained   a weights file -> the tensors of a timm model
families     timm models by name, and the sites of each family
sites        the places at which an adapter can be attached
precision    the precision in which the frozen part computes
activations  fewer activations kept for the backward pass
"""
