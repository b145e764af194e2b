"""langchain-openai. It drops the reasoning of earlier messages."""

from checks import BASE_URL, MODEL
from langchain_checks import run_with
from langchain_openai import ChatOpenAI

run_with(ChatOpenAI(model=MODEL, base_url=BASE_URL, api_key="any", temperature=0, max_retries=0))
