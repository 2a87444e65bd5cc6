//! Containers of images: what the image says, what the flags say over it, and the network.
