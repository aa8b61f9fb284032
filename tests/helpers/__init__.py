"""What tests share: small models, made-up records, and doubles of services; imported as
`helpers.NAME`.
"""
