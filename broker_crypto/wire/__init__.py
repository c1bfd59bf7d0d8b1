"""What goes over the wire: the TLS presentation language, the Avro single-object codec, the envelopes."""
