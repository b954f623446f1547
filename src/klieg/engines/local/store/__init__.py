"""The object plane: where large values are, who holds them, and what happens when there is no more room.

memory   files without a name and their mappings, as the kernel gives them
space    which parts of a file are free (pure)
segment  such a file as any process sees it, and a block of it as a view
arena    a segment of this process's own, from which it hands out blocks
ledger   one page that all processes share: how much each of them holds
store    puts values into arenas, keeps to the limit, moves values to disk
"""
