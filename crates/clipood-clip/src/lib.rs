//! CLIP in Burn: tokenizer, checkpoints, image and text encoders, prompt learner.
