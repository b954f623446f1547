"""Worker processes on this machine. The files in the order in which one call visits them:

engine → actors / leases → peer → wire → connection → reactor | worker → (concurrency/) → peer → ...
"""
