"""The dashboard: pages and JSON from the records of runs, and tags and notes through one writer."""

from starlette.applications import Starlette
from starlette.types import ASGIApp

from attnlab.dashboard.attention import AttentionAnswers
from attnlab.dashboard.claims import ClaimsAnswers
from attnlab.dashboard.compare import CompareAnswers
from attnlab.dashboard.context import Context
from attnlab.dashboard.embeddings import EmbeddingsAnswers
from attnlab.dashboard.experts import ExpertsAnswers
from attnlab.dashboard.guard import Access, Guard
from attnlab.dashboard.heads import HeadsAnswers
from attnlab.dashboard.influence import InfluenceAnswers
from attnlab.dashboard.live import LiveAnswers
from attnlab.dashboard.run import RunAnswers
from attnlab.dashboard.run_store import RunStore
from attnlab.dashboard.runs import RunsAnswers


def build_app(store: RunStore, access: Access) -> ASGIApp:
    """Build the application that answers requests for the runs of a store."""
    context = Context(store, access)
    parts = (
        *(RunsAnswers, CompareAnswers, RunAnswers, AttentionAnswers, LiveAnswers),
        *(HeadsAnswers, ExpertsAnswers, EmbeddingsAnswers, InfluenceAnswers, ClaimsAnswers),
    )
    return Guard(Starlette(routes=[r for part in parts for r in part(context).routes]), access)
