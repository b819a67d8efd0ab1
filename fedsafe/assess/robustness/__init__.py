"""How the model stands up to an attacker."""
