"""Migrate the database to this MLflow's schema, or explain in one line why the database cannot be used.

`mlflow db upgrade` alone would retry a wrong password for two minutes.
"""

import os
import sys

import psycopg2

try:
    psycopg2.connect("").close()  # by PGHOST, PGPORT, PGUSER, PGDATABASE and PGPASSWORD
except psycopg2.OperationalError as error:
    sys.exit(
        f"error: {str(error).strip()}\nPostgreSQL keeps the password that .env had when its volume was created; "
        "docs/tracking_server.md explains how to change it"
    )
os.execvp("mlflow", ["mlflow", "db", "upgrade", os.environ["MLFLOW_BACKEND_STORE_URI"]])
