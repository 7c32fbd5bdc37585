"""Ways to and from other libraries; each module needs the library that is named in its head."""
