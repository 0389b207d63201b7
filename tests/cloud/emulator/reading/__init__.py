"""What ministack does otherwise than AWS's documentation has it, put right: our reading, one file a service."""
