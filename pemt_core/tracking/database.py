"""A database server as the store itself: its driver, whether it lets us in, and one process at a time at its tables."""

from collections.abc import Iterator
from contextlib import contextmanager

from pemt_core.tracking.address import TrackingError, first_line, scheme, without_password

LOCK = 0x70656D74  # "pemt": the number of PostgreSQL's lock


def with_driver(uri: str) -> str:
    """`uri` with the driver that the extra `server` installs: SQLAlchemy's own choice for PostgreSQL is another."""
    return uri.replace("postgresql:", "postgresql+psycopg2:", 1) if uri.startswith("postgresql:") else uri


@contextmanager
def alone(uri: str) -> Iterator[None]:
    """Connect once, and on PostgreSQL let no other process into the body meanwhile, on whatever machine it runs.

    MLflow's migrations of one fresh database fail when they race, and a wrong password it would try for two minutes.
    TrackingError where the database lets us not in, or its driver is missing.
    """
    import sqlalchemy

    try:
        engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool)
        connection = engine.connect()
    except ModuleNotFoundError as error:
        raise TrackingError(
            f"{without_password(uri)}: the driver {error.name} is missing; pip install -e '.[server]' -c "
            "constraints.txt brings PostgreSQL's"
        ) from error
    except sqlalchemy.exc.SQLAlchemyError as error:
        raise TrackingError(f"{without_password(uri)}: the database does not let us in: {first_line(error)}") from error
    with connection:
        if scheme(uri) == "postgresql":
            connection.execute(sqlalchemy.text(f"SELECT pg_advisory_lock({LOCK})"))  # until the connection ends
        yield
