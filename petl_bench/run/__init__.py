"""One run. Import the modules: `identity` alone does without torch, so that plans are quick.

execute      a run from first to last: train, pack, reload, evaluate, store
training     the trainings of a run, and the search of protocol `sealed`
search       which candidates a search trains, and which it keeps
calibration  what methods may do with the training images before the training
identity     the run_id, and the tasks of a plan found and fingerprinted
metadata     columns, log and TensorBoard entries of a run
provenance   code revision, versions and hardware behind a row
"""
