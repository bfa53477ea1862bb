"""manas_lite: multi-scale attentive neural architecture search for image deraining."""
