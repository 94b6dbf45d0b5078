"""What people look at: pages, charts, pictures and tables; nothing here computes a figure."""
