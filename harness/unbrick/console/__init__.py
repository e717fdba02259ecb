"""A person at the console of a terminal that runs in real time, with the bench behind a key.

``keys`` takes typing apart. ``typist`` gives it to the terminal no faster than the terminal takes
it. ``screen`` shows the words of both terminal and bench. ``commands`` is the bench's prompt,
``air`` the server and the link. ``session`` gives each its turn.
"""
