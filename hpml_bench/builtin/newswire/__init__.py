"""Generator of newswire, the made-up world of news that the embedded model was pretrained on and
that the `newswire` data sets are drawn from. No plug-ins.
"""
