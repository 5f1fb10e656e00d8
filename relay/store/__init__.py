"""The only SQL: tables, migrations, and what is read and written in one transaction."""
