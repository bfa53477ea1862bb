"""Pictures in and out: image files and what they hold, deraining of any size, folders, video, ONNX.

* `images`: image files as uint8 arrays and tensors, the form that networks are trained on.
* `photographs`: photographs with depth, transparency, colour profile and camera data; imports `images`.
* `folding`: BatchNorm folded into convolutions; imports no module of this room.
* `tiling`: whole pictures in little memory; imports no module of this room.
* `inference`: `derain` for one picture; imports the four modules above and
  `onnx_export`.
* `folders`: a folder of pictures, and how long it takes; imports `inference`.
* `video`: a video, frame by frame; imports `folders` and `inference`.
* `zoo`: trained networks as files; imports no module of this room.
* `onnx_export`: a network as an ONNX file, and as what computes it; imports `folding` and `zoo`.

May import `draw`, `compute`, `networks` and what lies below them.
"""
