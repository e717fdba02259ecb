"""A person at the console of a terminal that runs in real time, with the bench behind a key.

``keys`` takes apart what is typed, ``typist`` gives it to the terminal no faster than the terminal
takes it, ``screen`` shows both what it says and what the bench has to say, ``commands`` is the
bench's prompt, ``air`` the server and the link, and ``session`` gives each its turn.
"""
