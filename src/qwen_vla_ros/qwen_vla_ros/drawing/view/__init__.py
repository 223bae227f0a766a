"""`qwen-vla view`: what RViz would show, without RViz: live or from a bag, in the rerun viewer or as a picture."""
