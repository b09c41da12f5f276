"""fed-ist: train an image classifier across devices with little bandwidth and little compute."""
