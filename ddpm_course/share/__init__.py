"To other tools and to the eye: diffusers, ONNX, drawings of the network."
