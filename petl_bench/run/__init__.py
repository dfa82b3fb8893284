"""One run. Import the modules themselves: `identity` does not import torch, so planning is fast.

execute      execution of a run from first to last: train, pack, reload, evaluate, store
training     trainings of a run, and the search of protocol `sealed`
search       full search and successive halving over candidates
calibration  access of adapter methods to the training images before the training
identity     run_id of a run, and resolved tasks of a plan
metadata     columns, log and TensorBoard entries of a run
provenance   code revision, versions and hardware of a row
source       digests of the code that makes a run
"""
