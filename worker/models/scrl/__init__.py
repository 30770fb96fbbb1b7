"""The model of SCRL: where one scene ends and the next begins, by a bidirectional LSTM over 40 shots."""
