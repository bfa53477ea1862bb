"""Pictures in and out: image files and what they hold, deraining of any size, folders, video, ONNX.

May import `draw`, `compute`, `networks` and what lies below them.
"""
