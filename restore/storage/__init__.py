"""What lies on disk or in a store, below all else.

`tensor_files` reads weights, `sealed` holds files to what was hashed, `digests` hashes many files
once, `database` and `listing` keep long lists out of memory, `urls` tells the addresses of object
stores from paths.
"""
