"""Where in a scan a model looks: heat maps by gradients, deconvolution, occlusion, attention."""
