"""How one actor runs many calls: the same code in a local worker and in the inline engine.

No sockets and no processes here. An engine hands in calls (`call.Call`), a loop or a way to start threads, and gets
back outcomes through the call's own `succeed` and `fail`.
"""
