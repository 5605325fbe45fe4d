"""What is installed and works here, and how a trained model fares; each with advice."""
