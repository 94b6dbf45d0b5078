"""Many runs, and what they say together; the program is `wsol_tf.study`."""
