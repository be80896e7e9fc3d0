"Images as one array of bytes: sets, decoding, the cache, where they come from."
