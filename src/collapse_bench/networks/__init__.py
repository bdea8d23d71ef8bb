"""Networks: plain modules that know nothing of the benchmark."""
