"""cmcore report: what the page holds, by parsing it; what it does is in test_html_browser.py."""

import base64
import json
import re
from html.parser import HTMLParser
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from toy import make_data

from cmcore.run import html, pictures
from cmcore.run.__main__ import main
