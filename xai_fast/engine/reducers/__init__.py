"""What map the answers make: each reducer takes them as they come and keeps no more than it must."""
