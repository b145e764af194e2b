"""langchain-moonshot. It keeps and echoes the reasoning."""

from checks import BASE_URL, MODEL
from langchain_checks import run_with
from langchain_moonshot import ChatMoonshot

run_with(ChatMoonshot(model=MODEL, base_url=BASE_URL, api_key="any", temperature=0, max_retries=0))
