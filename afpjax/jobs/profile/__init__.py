"""Job `profile`: what each layer costs on each device."""
