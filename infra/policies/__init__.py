"""What resources must keep to: pure rules, and a Pulumi policy pack made of them."""
