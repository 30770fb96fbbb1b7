"""The model of BaSSL: where one scene ends and the next begins, by a transformer over 17 shots."""
