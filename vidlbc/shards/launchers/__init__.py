"""Launchers: engines that call `encode_shard` for every shard of a plan. They decide where and when, never a byte.

local    processes on this machine
ray      actors on a Ray cluster
slurm    tasks of an array job, each with a process of its own
"""
