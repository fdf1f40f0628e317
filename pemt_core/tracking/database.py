"""A database server as the store: its driver, the login, and a lock under which one process sets up the tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from pemt_core.tracking.address import TrackingError, first_line, scheme, without_password

LOCK = 0x70656D74  # "pemt" in ASCII: the number of the lock in PostgreSQL


def with_driver(uri: str) -> str:
    """Return `uri` with the driver that the extra `server` installs, which is not SQLAlchemy's default."""
    return uri.replace("postgresql:", "postgresql+psycopg2:", 1) if uri.startswith("postgresql:") else uri


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Connect once; on PostgreSQL, lock the body against other processes on all machines.

    MLflow's migrations of a fresh database fail when they race, and MLflow would retry a wrong password for two
    minutes. TrackingError if the database rejects the login, or its driver is missing.
    """
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        connection = engine.connect()
    except ModuleNotFoundError as error:
        raise TrackingError(
            f"{without_password(uri)}: the driver {error.name} is missing; for PostgreSQL, run pip install -e "
            "'.[server]' -c constraints.txt"
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(f"{without_password(uri)}: the database rejects the login: {first_line(error)}") from error
    with connection:
        if scheme(uri) == "postgresql":
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({LOCK})"))  # until the connection ends
        yield
