"""Training on a machine that reaches nothing: tars go there, weights come back. tools/offline.py is the door.

    home                         node                                              home
    plan + data --pack--> tars --start.py--> root/ --run--> steps, one by one --> results --join--> model folder
                                                     |                             |
                                                     own session, until a deadline split, whole at any instant

A *plan* (configs/offline/) lists steps with the minute by which each is over. A *call* is one command on the node; the
steps live on between calls. Limits of the node (a call's minutes, sizes of what goes there and comes back) are options.
"""
