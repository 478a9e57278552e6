"""What a head recognises in latents, decoded frames or pixels, with everything under it frozen."""
