"""Ways to and from other libraries; each module needs the extra that is named in its head."""
