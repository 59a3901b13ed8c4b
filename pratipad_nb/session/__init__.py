"""Sessions: `Flow`, the handle that notebooks and the command line use, composed of server, certificates and runtime.

Draws nothing: pictures and widgets are in `pratipad_nb.notebook`.
"""
