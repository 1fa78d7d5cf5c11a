"""Damaged files of every kind that is read: none may end in anything but a sentence, at once and in bounds.

In continuous integration some thousands are read; by hand, ``python -m tests.fuzz --count 20000`` reads so
many of each kind, the same ones every time. What fails is named by its number, and
``python -m tests.fuzz table --first 1974 --count 1 --keep .`` leaves that file to look at.
"""
