"""Checks of this machine for `hpml-bench doctor`: each says in a line what it finds, and what to do
about it.

May import `gate` and the packages before it; in functions only, since a check has to say that a
package is missing; `system.checklist` needs none.
"""
